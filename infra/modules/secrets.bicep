// The two secrets that there are: what signs stream tokens, and the key of the container app's clients. The first
// deployment makes them up, nobody sees them, and later deployments leave them alone: they may have been changed
// in the vault. Apps read them by reference.

@description('The vault\'s name.')
param name string
@description('Where it is.')
param location string
@description('On every resource.')
param tags object
@description('The identity that reads them.')
param principalId string
@description('Who may read and change them.')
param operatorId string

@description('Part of what is made up: new at each deployment, used at the first.')
@secure()
param chance1 string = newGuid()
@description('Another part.')
@secure()
param chance2 string = newGuid()
@description('Another part.')
@secure()
param chance3 string = newGuid()
@description('Another part.')
@secure()
param chance4 string = newGuid()

// Key Vault Secrets User
var userRole = '4633458b-17de-408a-b874-0445c86b69e6'
// Key Vault Secrets Officer
var officerRole = 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: subscription().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 7
  }
}

@onlyIfNotExists()
resource tokens 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = {
  parent: vault
  name: 'stream-token-secrets'
  properties: { value: '${chance1}${chance2}' }
}

@onlyIfNotExists()
resource keys 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = {
  parent: vault
  name: 'api-keys'
  properties: { value: '${chance3}${chance4}' }
}

resource reads 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, principalId, userRole)
  scope: vault
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', userRole)
  }
}

// Without a type: it may be a person or a pipeline.
resource changes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, operatorId, officerRole)
  scope: vault
  properties: {
    principalId: operatorId
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', officerRole)
  }
}

output name string = vault.name
// Where they are, not what they are. Without a version: a new one is taken by itself.
output streamTokenSecretUri string = '${vault.properties.vaultUri}secrets/${tokens.name}'
output apiKeysUri string = '${vault.properties.vaultUri}secrets/${keys.name}'
